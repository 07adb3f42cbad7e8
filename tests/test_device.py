import copy
import importlib
import importlib.metadata
import importlib.util
import os
import pickle
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import array_api_compat
import numpy as np
import pytest

import devconv as dc
from devconv import _array
from devconv._check import InvalidType, InvalidValue

room = importlib.import_module("devconv.device")  # the attribute dc.device is the function
finding = importlib.import_module("devconv._detect")

ROOT = Path(__file__).parents[1]
INSTALL = 'pip install "devconv[cuda12]" or "devconv[cuda13]", as nvidia-smi shows the CUDA version'


def on(*specs):
    """Parameters: the specs, those of a library that is not installed skipped by name."""
    return [
        pytest.param(
            spec,
            marks=pytest.mark.skipif(
                importlib.util.find_spec(library_of(spec)) is None,
                reason=f"{library_of(spec)} is not installed",
            ),
        )
        for spec in specs
    ]


def library_of(spec):
    return spec.partition(":")[0] if spec != "cpu" else "numpy"


HERE = on("cpu", "torch", "jax", "array_api_strict", "array_api_strict:device1")
DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Each test asks for devices anew, whatever the environment says."""
    monkeypatch.setattr(finding, "_answers", {})
    monkeypatch.setattr(finding, "in_conda", lambda: False)
    monkeypatch.delenv("DEVCONV_DEVICE", raising=False)


@pytest.fixture
def no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    wheels(monkeypatch)


def wheels(monkeypatch, *names):
    """Let pip have a record of these distributions and no other."""

    def distribution(name):
        if name not in names:
            raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)


@contextmanager
def x64(enabled):
    jax = pytest.importorskip("jax")
    with jax.enable_x64(enabled):
        yield


class FakeCuPy:
    """A CuPy made of NumPy: two GPUs, a current device, and ways to be broken."""

    def __init__(self, monkeypatch):
        self.gpus = 2
        self.available = True
        self.driver = 13000
        self.kernel = lambda gpu, x: x
        self.asked = 0
        self.kernels = 0
        current = threading.local()
        fake = self

        class Device:
            def __init__(self, id):
                self.id = id

            def __enter__(self):
                self.outer = getattr(current, "id", 0)
                current.id = self.id

            def __exit__(self, *_):
                current.id = self.outer

            def __eq__(self, other):
                return isinstance(other, Device) and self.id == other.id

            def __hash__(self):
                return self.id

        class ndarray:
            def __init__(self, host, gpu):
                self.host, self.device = host, Device(gpu)
                self.shape, self.dtype, self.ndim = host.shape, host.dtype, host.ndim
                self.flags = SimpleNamespace(c_contiguous=True)

            def __mul__(self, other):
                assert getattr(current, "id", 0) == self.device.id, "not the current device"
                fake.kernels += 1
                return ndarray(fake.kernel(self.device.id, self.host * other), self.device.id)

            def __add__(self, other):
                return ndarray(self.host + other, self.device.id)

            def get(self):
                return np.array(self.host, order="C")

        def asarray(x, dtype=None, device=None):
            host = x.host if isinstance(x, ndarray) else x  # device= is ignored, as in CuPy
            return ndarray(np.array(host, dtype=dtype, order="C"), getattr(current, "id", 0))

        def is_available():
            self.asked += 1
            return self.available

        def device_count():
            if self.available:
                return self.gpus
            raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version\nis insufficient")

        runtime = SimpleNamespace(
            getDeviceCount=device_count,
            driverGetVersion=lambda: self.driver,
            getDeviceProperties=lambda index: {"name": f"Fake {index}".encode()},
        )
        names = {
            "ndarray": ndarray,
            "asarray": asarray,
            "is_available": is_available,
            "cuda": SimpleNamespace(
                Device=Device,
                runtime=runtime,
                get_current_stream=lambda: SimpleNamespace(record=str, wait_event=repr),
            ),
            "matmul": lambda a, b: ndarray(a.host @ b.host, a.device.id),
            "permute_dims": lambda x, axes: ndarray(np.transpose(x.host, axes), x.device.id),
            "astype": lambda x, dtype: ndarray(x.host.astype(dtype), x.device.id),
            "__version__": "14.2.0",
            **{name: np.dtype(name) for name in DTYPES},
        }
        self.module = ModuleType("cupy")
        namespace = ModuleType("array_api_compat.cupy")
        for name, value in names.items():
            setattr(self.module, name, value)
            setattr(namespace, name, value)
        monkeypatch.setitem(sys.modules, "cupy", self.module)
        monkeypatch.setitem(sys.modules, "array_api_compat.cupy", namespace)
        monkeypatch.setattr(array_api_compat, "cupy", namespace, raising=False)
        wheels(monkeypatch, "cupy-cuda12x")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def cupy(monkeypatch):
    return FakeCuPy(monkeypatch)


# Names and what they mean.


@pytest.mark.parametrize("spec", HERE)
def test_a_device_by_name(spec):
    d = dc.device(spec)
    assert d.spec == spec
    assert d.library == library_of(spec)
    assert d.reason == "asked for by name"
    assert dc.device(d.spec) == d
    assert dc.device(d) is d
    x = d.asarray(np.ones(2, dtype="float32"))
    assert d.xp is _array.array_namespace(x)
    assert _array.device(x) == d.native
    assert _array.device_name(x) == spec


@pytest.mark.parametrize(
    ("spec", "canonical", "shown"),
    [
        ("cpu", "cpu", "cpu (numpy)"),
        ("numpy", "cpu", "cpu (numpy)"),
        ("torch", "torch", "cpu (torch)"),
        ("torch:cpu", "torch", "cpu (torch)"),
        ("torch:cpu:0", "torch", "cpu (torch)"),
        ("jax", "jax", "cpu (jax)"),
        ("jax:cpu", "jax", "cpu (jax)"),
        ("jax:cpu:0", "jax", "cpu (jax)"),
        ("array_api_strict", "array_api_strict", "cpu (array_api_strict)"),
        ("array_api_strict:device1", "array_api_strict:device1", "device1 (array_api_strict)"),
    ],
)
def test_spellings(spec, canonical, shown):
    pytest.importorskip(library_of(spec))
    assert dc.device(spec).spec == canonical
    assert str(dc.device(spec)) == shown


@pytest.mark.parametrize("spec", HERE)
def test_a_device_is_a_value(spec):
    d = dc.device(spec)
    with pytest.raises(AttributeError):
        d.spec = "cuda"
    assert len({d, dc.device(spec)}) == 1
    assert pickle.loads(pickle.dumps(d)) == d
    assert copy.deepcopy(d) == d
    assert d != room._describe("cupy", SimpleNamespace(id=0), "asked for by name")
    assert repr(d) == f"Device(spec='{spec}', library='{d.library}', reason='asked for by name')"


@pytest.mark.parametrize(
    "spec",
    [
        *("", "gpu", "CPU", "cpu:0", "numpy:cpu", "cpu:", "cuda:", "cuda:x", "cuda:-1", "cuda:0:1"),
        *("cupy:cuda:0", "cuda:²", "tensorflow", " cpu", "torch:", "torch:zork", "torch:cuda:x"),
        "jax:cuda:x",
    ],
)
def test_an_unknown_device_lists_the_valid_forms(spec, cupy):
    pytest.importorskip(library_of(spec) if spec[:5] in ("torch", "jax:c") else "numpy")
    with pytest.raises(InvalidValue) as error:
        dc.device(spec)
    assert str(error.value) == (
        f'unknown device "{spec}", expected "auto", "cpu", "cuda", "cuda:1", or a library by name: '
        '"numpy", "cupy:0", "torch", "torch:cuda:0", "jax", "jax:cuda:0", "array_api_strict"'
    )


def test_an_unknown_device_of_array_api_strict_lists_its_devices():
    pytest.importorskip("array_api_strict")
    with pytest.raises(
        InvalidValue, match='unknown device "array_api_strict:d9", array-api-strict'
    ) as error:
        dc.device("array_api_strict:d9")
    assert '"array_api_strict:device1", ' in str(error.value)


def test_an_unknown_device_of_jax():
    pytest.importorskip("jax")
    with pytest.raises(
        InvalidValue, match=r'"jax:zork" cannot be used: JAX \S+ has no such device'
    ):
        dc.device("jax:zork")
    with pytest.raises(InvalidValue, match='"jax:cpu:7" does not exist: JAX sees 1 of them'):
        dc.device("jax:cpu:7")


@pytest.mark.parametrize("spec", [None, 0, ["cpu"], object])
def test_a_device_must_be_named_by_a_string(spec):
    with pytest.raises(InvalidType, match='device must be a string such as "auto", "cpu"'):
        dc.device(spec)


@pytest.mark.parametrize("spec", HERE)
def test_an_array_stands_for_its_own_device(spec):
    x = dc.device(spec).asarray(np.ones(2, dtype="float32"))
    assert dc.device_of(x) == dc.device(x) == dc.device(spec)
    assert dc.device_of(x).reason == "the array's own device"
    assert dc.device_of(x).native == _array.device(x)
    assert dc.device_of(dc.to_device(np.ones(2, dtype="float32"), x)) == dc.device(spec)


@pytest.mark.parametrize("x", [[1.0], 1.0, None, np.ma.ones(2)])
def test_device_of_refuses_what_is_not_an_array(x):
    expected = f"device_of: expected an array of NumPy, CuPy, .*, got {type(x).__name__}"
    with pytest.raises(InvalidType, match=expected):
        dc.device_of(x)


# "auto", and GPUs in every state.


def test_auto_without_cupy(no_cupy):
    d = dc.device("auto")
    assert d == dc.device("cpu")
    assert d.reason == f"no usable GPU: CuPy is not installed; {INSTALL}"
    assert dc.device().reason == d.reason


def test_auto_without_a_driver(cupy):
    cupy.available, cupy.driver = False, 0
    d = dc.device("auto")
    assert d.spec == "cpu"
    assert d.reason == (
        "no usable GPU: CuPy 14.2.0 is installed, but CUDA finds no GPU (no NVIDIA driver); "
        "install or update the NVIDIA driver (nvidia-smi lists the GPUs it sees)"
    )


def test_auto_with_an_old_driver(cupy):
    cupy.available = False
    assert (
        "CUDA finds no GPU (RuntimeError: cudaErrorInsufficientDriver: CUDA driver version is "
        in (dc.device("auto").reason)
    )


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_gpus_that_are_hidden(hidden, cupy, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    cupy.module.is_available = lambda: False

    def told(problem):
        finding._answers.clear()
        monkeypatch.setattr(cupy.module.cuda.runtime, "getDeviceCount", problem)
        return dc.device("auto").reason

    def no_device():
        raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    def old_driver():
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    mend = f"unset CUDA_VISIBLE_DEVICES, which is {hidden!r} and hides GPUs"
    assert told(no_device).endswith(mend)
    assert told(lambda: 0).endswith(mend)
    assert "install or update the NVIDIA driver" in told(old_driver)
    cupy.driver = 0
    assert "install or update the NVIDIA driver" in told(no_device)


def test_auto_with_a_driver_and_no_gpu(cupy):
    cupy.gpus = 0
    cupy.module.is_available = lambda: False
    assert "CUDA finds no GPU (the driver shows 0); " in dc.device("auto").reason


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            RuntimeError("CuPy failed to load\nlibnvrtc.so.12"),
            "RuntimeError: CuPy failed to load libn",
        ),
        (ImportError("libcublas.so.12: cannot open"), "ImportError: libcublas.so.12: cannot open"),
        (OSError("x" * 1000), f"OSError: {'x' * 157}..."),
    ],
)
def test_auto_when_the_kernel_fails(cupy, error, text):
    def fail(gpu, x):
        raise error

    cupy.kernel = fail
    d = dc.device("auto")
    assert d.spec == "cpu"
    assert d.reason.startswith(
        f"no usable GPU: a first computation on cuda:0 (cupy) failed ({text}"
    )
    assert d.reason.endswith('; install the CUDA libraries with it: pip install "devconv[cuda12]"')
    assert "\n" not in d.reason


def test_auto_when_the_numbers_are_wrong(cupy):
    cupy.kernel = lambda gpu, x: x + (np.arange(64).reshape(8, 8) == 63)
    assert dc.device("auto").reason == (
        "no usable GPU: a first computation on cuda:0 (cupy) gave wrong numbers; "
        "check the GPU and its driver (nvidia-smi)"
    )


def test_auto_when_the_kernel_alone_is_wrong(cupy):
    cupy.kernel = lambda gpu, x: x + 1.0
    right = sys.modules["array_api_compat.cupy"].matmul

    def matmul(a, b):
        return right(a, b + -1.0)

    sys.modules["array_api_compat.cupy"].matmul = matmul
    assert "gave wrong numbers" in dc.device("auto").reason


def test_auto_when_the_product_is_wrong(cupy):
    cupy.module.matmul = sys.modules["array_api_compat.cupy"].matmul = lambda a, b: a
    assert "gave wrong numbers" in dc.device("auto").reason


@pytest.mark.parametrize("broken", [True, False])
def test_auto_when_half_of_cupy_is_left(monkeypatch, cupy, broken):
    if broken:
        del cupy.module.is_available
        expected = "CuPy is installed but broken (AttributeError: module 'cupy' has no attribute"
    else:
        line = "=" * 64
        banner = f"\n{line}\nFailed to import.\n\nOriginal error:\n  ImportError: libcuda\n{line}\n"

        def fail(name):
            raise ImportError(banner)

        monkeypatch.setattr(finding, "import_module", fail)
        expected = "CuPy is installed but cannot be imported (ImportError: libcuda); pip uninst"
    d = dc.device("auto")
    assert d.spec == "cpu"
    assert d.reason.startswith(f"no usable GPU: {expected}")


def test_auto_takes_the_first_gpu_that_works(cupy):
    d = dc.device("auto")
    assert (d.spec, str(d), d.library, d.native.id) == ("cuda:0", "cuda:0 (cupy)", "cupy", 0)
    assert d.reason == "the first usable GPU: Fake 0, through CuPy 14.2.0"
    assert dc.device("cuda") == dc.device("cupy") == dc.device("cupy:0") == d
    assert dc.device("cuda").reason == "asked for by name"
    assert str(dc.device("cupy:1")) == "cuda:1 (cupy)"


def test_auto_passes_over_a_broken_gpu(cupy):
    cupy.kernel = lambda gpu, x: x if gpu == 1 else 1 / 0
    assert dc.device("auto").spec == "cuda:1"
    with pytest.raises(
        InvalidValue, match=r'"cuda" cannot be used: a first .* \(ZeroDivisionError: '
    ):
        dc.device("cuda")


def test_detection_is_asked_once(cupy):
    for _ in range(3):
        assert dc.device("auto") == dc.device("cuda")
    assert (cupy.asked, cupy.kernels) == (1, 1)
    dc.device("cuda:1")
    assert (cupy.asked, cupy.kernels) == (1, 2)


def test_a_refusal_is_asked_once_too(cupy):
    cupy.available = False
    first = dc.device("auto").reason
    for _ in range(3):
        assert dc.device("auto").reason == first
        with pytest.raises(InvalidValue):
            dc.device("cuda")
    assert cupy.asked == 1


def test_detection_is_asked_once_by_many_threads(cupy):
    gate = threading.Barrier(8)
    found = []

    def slow(gpu, x):
        time.sleep(0.05)
        return x

    cupy.kernel = slow

    def ask():
        gate.wait()
        found.append(dc.device("auto").spec)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["cuda:0"] * 8
    assert (cupy.asked, cupy.kernels) == (1, 1)


def test_a_cpu_is_found_without_looking_for_a_gpu(cupy):
    dc.device("cpu")
    dc.to_device(np.ones(2), "numpy")
    assert cupy.asked == 0


def test_the_environment_overrides_auto(monkeypatch, cupy):
    monkeypatch.setenv("DEVCONV_DEVICE", " cpu ")
    d = dc.device("auto")
    assert d == dc.device("cpu")
    assert d.reason == "set by DEVCONV_DEVICE=cpu"
    assert cupy.asked == 0
    assert dc.device("cuda").spec == "cuda:0"  # asked for by name: the variable has no say


@pytest.mark.parametrize("value", ["", "auto"])
def test_an_environment_without_a_wish(monkeypatch, no_cupy, value):
    monkeypatch.setenv("DEVCONV_DEVICE", value)
    assert dc.device("auto").reason.startswith("no usable GPU: CuPy is not installed")


def test_an_error_names_the_environment_variable(monkeypatch, no_cupy):
    monkeypatch.setenv("DEVCONV_DEVICE", "zork")
    with pytest.raises(
        InvalidValue, match=r'^DEVCONV_DEVICE=zork: unknown device "zork", expected'
    ):
        dc.device("auto")
    monkeypatch.setenv("DEVCONV_DEVICE", "cuda")
    with pytest.raises(
        InvalidValue, match=r'^DEVCONV_DEVICE=cuda: "cuda" cannot be used: CuPy is not'
    ):
        dc.device("auto")


def test_a_gpu_by_name_says_what_to_install(no_cupy):
    with pytest.raises(InvalidValue) as error:
        dc.device("cuda")
    assert str(error.value) == f'"cuda" cannot be used: CuPy is not installed; {INSTALL}'


def test_a_gpu_by_name_without_a_driver(cupy):
    cupy.available, cupy.driver = False, 0
    with pytest.raises(
        InvalidValue, match=r'"cupy:1" cannot be used: CuPy 14.* \(no NVIDIA driver\)'
    ):
        dc.device("cupy:1")


def test_a_gpu_by_name_whose_kernel_fails(cupy):
    cupy.kernel = lambda gpu, x: 1 / 0
    with pytest.raises(
        InvalidValue, match=r"failed \(ZeroDivisionError: .*\); install the CUDA lib"
    ):
        dc.device("cuda")


def test_a_gpu_that_does_not_exist(cupy):
    with pytest.raises(
        InvalidValue, match=r'^"cuda:2" does not exist: CuPy sees 2 of them, from 0 on$'
    ):
        dc.device("cuda:2")


def test_what_to_install_follows_the_wheel_that_is_there(monkeypatch):
    wheels(monkeypatch)
    assert finding.cupy_install() == INSTALL
    for cuda in ("cuda12", "cuda13"):
        wheels(monkeypatch, f"cupy-{cuda}x")
        assert finding.cupy_install() == f'pip install "devconv[{cuda}]"'


@pytest.mark.parametrize(
    ("records", "install"),
    [
        ((), "conda install -c conda-forge cupy"),
        (("cupy",), "conda install -c conda-forge cupy"),
        (("cupy-cuda13x",), 'pip install "devconv[cuda13]"'),
    ],
)
def test_what_to_install_in_conda(monkeypatch, records, install):
    monkeypatch.setattr(finding, "in_conda", lambda: True)
    wheels(monkeypatch, *records)
    assert finding.cupy_install() == install


def test_whether_python_is_conda_s(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert not finding.in_conda()
    (tmp_path / "conda-meta").mkdir()
    assert finding.in_conda()


def test_two_wheels_one_of_them_removed(monkeypatch, no_cupy):
    wheels(monkeypatch, "cupy-cuda13x")
    assert dc.device("auto").reason == (
        "no usable GPU: CuPy is not installed; only the record of cupy-cuda13x is left: "
        'pip uninstall -y cupy-cuda13x, then pip install "devconv[cuda13]"'
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("torch", "PyTorch is not installed; pip install torch"),
        ("torch:cuda:0", "PyTorch is not installed; pip install torch"),
        ("jax", "JAX is not installed; pip install jax"),
        ("array_api_strict", "array-api-strict is not installed; pip install array-api-strict"),
    ],
)
def test_a_library_that_is_not_installed(monkeypatch, spec, expected):
    monkeypatch.setitem(sys.modules, library_of(spec), None)
    with pytest.raises(InvalidValue) as error:
        dc.device(spec)
    assert str(error.value) == f'"{spec}" cannot be used: {expected}'


@pytest.mark.parametrize(
    "error", [OSError("libtorch.so: no such file"), ModuleNotFoundError("no sympy", name="sympy")]
)
def test_a_library_that_cannot_be_imported(monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr(finding, "import_module", fail)
    expected = rf"PyTorch is installed but cannot be imported \({type(error).__name__}: {error}\)"
    with pytest.raises(InvalidValue, match=f'"torch" cannot be used: {expected}; mend that'):
        dc.device("torch")


def test_torch_without_gpus():
    torch = pytest.importorskip("torch")
    with pytest.raises(
        InvalidValue, match=r'"torch:meta" cannot be used: PyTorch \S+ finds no meta'
    ):
        dc.device("torch:meta")
    if torch.version.cuda is None:
        expected = r"finds no cuda device \(built without CUDA\); install .*: pip install torch$"
        with pytest.raises(InvalidValue, match=expected):
            dc.device("torch:cuda")


def test_torch_with_gpus(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InvalidValue, match='"torch:cuda:2" does not exist: PyTorch sees 2 of them'):
        dc.device("torch:cuda:2")
    monkeypatch.setattr(room, "_compute_on", lambda candidate: "Fake")
    d = dc.device("torch:cuda")
    assert (d.spec, str(d), d.native) == ("torch:cuda:0", "cuda:0 (torch)", torch.device("cuda:0"))
    assert dc.device(d.spec) == d
    monkeypatch.setattr(torch.mps, "device_count", lambda: 1)
    d = dc.device("torch:mps")
    assert (d.spec, str(d)) == ("torch:mps:0", "mps:0 (torch)")
    assert d.dtypes == ("float16", "bfloat16", "float32")


def test_torch_with_cuda_and_no_driver(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InvalidValue, match="finds no cuda device; install its driver"):
        dc.device("torch:cuda:0")


def test_a_torch_gpu_that_does_not_compute(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def fail(device, host, dtype=None):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(room.Device, "asarray", fail)
    expected = (
        r"first computation on cuda:0 \(torch\) failed \(RuntimeError: no kernel image\); check"
    )
    with pytest.raises(InvalidValue, match=expected):
        dc.device("torch:cuda")


def test_jax_without_gpus():
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "cpu":
        pytest.skip("JAX has a GPU here")
    with pytest.raises(
        InvalidValue, match=r'has no such device .*; pip install "jax\[cuda12\]" or'
    ):
        dc.device("jax:cuda:0")


def test_a_trial_gives_the_right_numbers_on_every_library():
    for spec in ("torch", "jax", "array_api_strict:device1", "cpu"):
        if importlib.util.find_spec(library_of(spec)):
            assert room._try_out(dc.device(spec)) == str(dc.device(spec))


# Dtypes.


def test_dtypes():
    assert dc.device("cpu").dtypes == ("float16", "float32", "float64")
    assert dc.device("cpu").dtype("float32") == np.float32
    assert dc.device("cpu").has_dtype(np.float64)
    assert dc.device("cpu").has_dtype(np.dtype("int8"))
    assert not any(
        map(dc.device("cpu").has_dtype, ("bfloat16", "float128", "array", "object", "key"))
    )


def test_dtypes_of_torch():
    torch = pytest.importorskip("torch")
    d = dc.device("torch")
    assert d.dtypes == ("float16", "bfloat16", "float32", "float64")
    assert d.dtype("bfloat16") is torch.bfloat16
    assert d.dtype(np.float32) is torch.float32
    assert dc.device("cpu").dtype(torch.int16) == np.int16


def test_dtypes_of_array_api_strict():
    xp = pytest.importorskip("array_api_strict")
    assert dc.device("array_api_strict").dtypes == ("float32", "float64")
    assert dc.device("array_api_strict:no_float64").dtypes == ("float32",)
    assert dc.device("array_api_strict").dtype(xp.float32) == xp.float32
    with pytest.raises(
        InvalidType, match=r"^no_float64 \(array_api_strict\) has no float64; use one of"
    ):
        dc.device("array_api_strict:no_float64").dtype("float64")
    with pytest.raises(InvalidType, match=r"has no int64; use one of int8, int16, int32$"):
        dc.device("array_api_strict:no_x64").dtype("int64")


def test_dtypes_of_jax_follow_its_switch():
    with x64(False):
        assert dc.device("jax").dtypes == ("float16", "bfloat16", "float32")
        assert not dc.device("jax").has_dtype("int64")
        with pytest.raises(InvalidType) as error:
            dc.device("jax").dtype("float64")
        assert str(error.value) == (
            'cpu (jax) has no float64; call jax.config.update("jax_enable_x64", True), '
            "or use one of float16, bfloat16, float32"
        )
        with pytest.raises(
            InvalidType, match=r"to_device: x \(2, 3\) cannot arrive as float64: cpu \(jax\)"
        ):
            dc.to_device(np.ones((2, 3)), "jax")
        with pytest.raises(InvalidType, match="or use one of int8, int16, int32 "):
            dc.to_device(np.asarray([1, 2**40]), "jax")
        labels = dc.to_device(np.asarray([3, -1]), "jax")  # int32 holds these
        assert _array.dtype_name(labels.dtype) == "int32"
        assert _array.to_numpy(labels).tolist() == [3, -1]
        assert (
            _array.dtype_name(dc.to_device(np.ones(2), "jax", dtype="float32").dtype) == "float32"
        )
    with x64(True):
        assert dc.device("jax").dtypes == ("float16", "bfloat16", "float32", "float64")
        assert _array.dtype_name(dc.to_device(np.ones(2), "jax").dtype) == "float64"


def test_a_dtype_the_device_does_not_have():
    with pytest.raises(
        InvalidType, match=r"cpu \(numpy\) has no bfloat16; use one of float16, float32, "
    ):
        dc.device("cpu").dtype("bfloat16")
    with pytest.raises(InvalidType, match="has no zork; use one of float16, float32, float64"):
        dc.device("cpu").asarray(np.ones(2), "zork")


# Putting host arrays somewhere.


@pytest.mark.parametrize("spec", HERE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_asarray_keeps_values_and_dtype(spec, dtype):
    host = np.asarray([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    d = dc.device(spec)
    if not d.has_dtype(dtype):
        with pytest.raises(InvalidType, match=f"has no {dtype}"):
            d.asarray(host)
        return
    x = d.asarray(host)
    assert _array.dtype_name(x.dtype) == dtype
    assert _array.device(x) == d.native
    np.testing.assert_array_equal(dc.to_numpy(x), host)


def layouts():
    host = np.arange(120.0, dtype="float32").reshape(2, 3, 4, 5)
    frozen = host.copy()
    frozen.flags.writeable = False
    yield "channels-last", np.moveaxis(np.ascontiguousarray(np.moveaxis(host, 1, -1)), -1, 1)
    yield "reversed", host[::-1, :, ::-1]
    yield "strided", host[:, ::2, 1:, ::3]
    yield "read-only", frozen
    yield "broadcast", np.broadcast_to(host[:, :1], host.shape)
    yield "big-endian", host.astype(">f4")
    yield "empty", host[:0]
    yield "0-d", host[0, 0, 0, 0:1].reshape(())
    yield "Fortran", np.asfortranarray(host)


@pytest.mark.parametrize("spec", HERE)
@pytest.mark.parametrize("host", [pytest.param(x, id=name) for name, x in layouts()])
def test_asarray_takes_any_strides(spec, host):
    x = dc.device(spec).asarray(host)
    assert tuple(x.shape) == host.shape
    assert _array.dtype_name(x.dtype) == "float32"
    np.testing.assert_array_equal(dc.to_numpy(x), host)


@pytest.mark.parametrize("spec", HERE)
@pytest.mark.parametrize("size", [3, 100_000])
def test_asarray_shares_no_memory(spec, size):
    host = np.ones(size, dtype="float32")
    x = dc.device(spec).asarray(host)
    host[:] = 5.0
    np.testing.assert_array_equal(dc.to_numpy(x), np.ones(size))


@pytest.mark.parametrize("spec", HERE)
def test_asarray_casts(spec):
    d = dc.device(spec)
    for given in ("float32", np.float32, d.xp.float32):
        x = d.asarray(np.asarray([1.5, 2.5]), given)
        assert x.dtype == d.xp.float32
        np.testing.assert_array_equal(dc.to_numpy(x), [1.5, 2.5])
    assert d.asarray(np.float64(2.0), "float32").shape == ()


@pytest.mark.parametrize("spec", on("torch", "jax"))
def test_asarray_makes_bfloat16(spec):
    x = dc.device(spec).asarray(np.asarray([1.5, 3.0]), "bfloat16")
    assert _array.dtype_name(x.dtype) == "bfloat16"
    np.testing.assert_array_equal(dc.to_numpy(x), [1.5, 3.0])
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = dc.device(spec).asarray(np.asarray([1.5, 3.0]).astype(ml_dtypes.bfloat16))
    assert _array.dtype_name(x.dtype) == "bfloat16"


def test_asarray_keeps_the_order_of_axes_in_memory(cupy):
    host = dict(layouts())["channels-last"]
    assert dc.device("cpu").asarray(host).strides == host.strides
    assert dc.device("cuda:1").asarray(host).host.strides == host.strides
    torch = pytest.importorskip("torch")
    assert dc.device("torch").asarray(host).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("x", [[1.0], 1.0, np.ma.ones(2)])
def test_asarray_refuses_what_is_not_a_numpy_array(x):
    with pytest.raises(
        InvalidType, match=f"asarray: expected a NumPy array, got {type(x).__name__}"
    ):
        dc.device("cpu").asarray(x)


def test_asarray_refuses_to_lose_an_imaginary_part():
    with pytest.raises(InvalidType, match="complex128 would lose its imaginary part as float32"):
        dc.device("cpu").asarray(np.ones(2, dtype=complex), "float32")


# Moving arrays.


@pytest.mark.parametrize("there", HERE)
@pytest.mark.parametrize("here", HERE)
def test_moving_keeps_values_and_dtype(here, there):
    source, goal = dc.device(here), dc.device(there)
    for dtype in DTYPES:
        if not (source.has_dtype(dtype) and goal.has_dtype(dtype)):
            continue
        host = np.asarray([[0, 1, 2], [3, 4, 5]]).astype(dtype)
        x = source.asarray(host)
        y = dc.to_device(x, there)
        assert dc.device_of(y) == goal
        assert _array.dtype_name(y.dtype) == dtype
        np.testing.assert_array_equal(dc.to_numpy(y), host)
        assert (y is x) == (here == there)


@pytest.mark.parametrize("spec", HERE)
@pytest.mark.parametrize("host", [pytest.param(x, id=name) for name, x in layouts()])
def test_moving_takes_any_strides(spec, host):
    y = dc.to_device(host, spec)
    np.testing.assert_array_equal(dc.to_numpy(y), host)
    np.testing.assert_array_equal(dc.to_device(y, "cpu"), host)


@pytest.mark.parametrize("spec", on("torch", "jax", "array_api_strict"))
def test_moving_between_libraries_shares_no_memory(spec):
    host = np.ones(100_000, dtype="float32")
    y = dc.to_device(host, spec)
    back = dc.to_device(y, "cpu")
    host[:] = 5.0
    np.testing.assert_array_equal(dc.to_numpy(y), np.ones(100_000))
    back[:] = 7.0  # also: it can be written to
    np.testing.assert_array_equal(dc.to_numpy(y), np.ones(100_000))


def test_moving_to_array_api_strict_and_on_shares_no_memory():
    pytest.importorskip("array_api_strict")
    torch = pytest.importorskip("torch")
    t = torch.ones(3)
    x = dc.to_device(t, "array_api_strict")
    x[0] = 5.0
    t[1] = 7.0
    np.testing.assert_array_equal(dc.to_numpy(x), [5, 1, 1])
    np.testing.assert_array_equal(dc.to_numpy(t), [1, 7, 1])


def test_bfloat16_between_torch_and_jax():
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    values = torch.asarray([1.5, 3.140625, float("inf")], dtype=torch.bfloat16)
    x = dc.to_device(values, "jax")
    assert x.dtype == jnp.bfloat16
    y = dc.to_device(x, "torch")
    assert y.dtype is torch.bfloat16
    assert torch.equal(y, values)
    with pytest.raises(
        InvalidType, match=r"x \(3,\) cannot arrive as bfloat16: cpu \(numpy\) has no bfl"
    ):
        dc.to_device(values, "cpu")
    assert dc.to_device(values, "cpu", dtype="float32").dtype == np.float32


@pytest.mark.parametrize("spec", HERE)
def test_casting_on_the_way(spec):
    y = dc.to_device(np.asarray([1, 2]), spec, dtype="float32")
    assert _array.dtype_name(y.dtype) == "float32"
    assert dc.to_device(y, spec, dtype="float32") is y
    z = dc.to_device(y, spec, dtype="int32")
    assert _array.dtype_name(z.dtype) == "int32"
    assert dc.to_device(y, spec, dtype=z.dtype).dtype == z.dtype


def test_casting_before_or_after_the_move():
    pytest.importorskip("array_api_strict")
    wide = dc.to_device(np.ones(2), "array_api_strict")
    with pytest.raises(
        InvalidType, match=r"cannot arrive as float64: no_float64 \(array_api_strict\)"
    ):
        dc.to_device(wide, "array_api_strict:no_float64")
    narrow = dc.to_device(wide, "array_api_strict:no_float64", dtype="float32")
    assert dc.device_of(narrow).spec == "array_api_strict:no_float64"
    again = dc.to_device(narrow, "array_api_strict", dtype="float64")
    assert _array.dtype_name(again.dtype) == "float64"


@pytest.mark.parametrize("dtype", ["float16", "longdouble", "object", "datetime64[s]", "U3"])
def test_a_dtype_that_cannot_arrive(dtype):
    pytest.importorskip("array_api_strict")
    with pytest.raises(
        InvalidType, match=r"to_device: x \(2,\) cannot arrive as .*use one of float32, float64 "
    ):
        dc.to_device(np.zeros(2, dtype=dtype), "array_api_strict")


def test_no_imaginary_part_is_lost():
    for spec in ("cpu", "torch"):
        pytest.importorskip(library_of(spec))
        with pytest.raises(
            InvalidType, match=r"x \(2,\) is complex128 and would lose its imaginary part"
        ):
            dc.to_device(np.ones(2, dtype=complex), spec, dtype="float64")


@pytest.mark.parametrize("x", [[1.0, 2.0], (1,), 1.0, None, "cpu", np.ma.ones(2)])
def test_to_device_refuses_what_is_not_an_array(x):
    with pytest.raises(InvalidType) as error:
        dc.to_device(x, "cpu")
    assert str(error.value) == (
        f"to_device: expected an array, got {type(x).__name__}; make one with numpy.asarray(x)"
    )


def test_to_device_says_why_a_device_cannot_be_used(no_cupy):
    with pytest.raises(
        InvalidValue, match='to_device: "cuda:1" cannot be used: CuPy is not installed'
    ):
        dc.to_device(np.ones(2), "cuda:1")


def test_numpy_scalars_are_arrays_too():
    assert type(dc.to_device(np.float32(2.0), "cpu")) is np.ndarray


def test_moving_to_and_between_gpus(cupy):
    host = np.arange(6.0).reshape(2, 3)
    x = dc.to_device(host, "cuda:1")
    assert (dc.device_of(x).spec, x.dtype, x.device.id) == ("cuda:1", np.float64, 1)
    assert dc.to_device(x, "cuda:1") is x
    y = dc.to_device(x, "cuda")
    assert (dc.device_of(y).spec, y.device.id) == ("cuda:0", 0)
    assert dc.to_device(y, x).device.id == 1
    np.testing.assert_array_equal(dc.to_device(y, "cpu"), host)
    assert dc.to_device(host, "cuda:1", dtype="float32").dtype == np.float32


@pytest.fixture
def asked_anew():
    """Whether CuPy has bfloat16 is asked again, before and after."""
    _array._bfloat16.cache_clear()
    yield
    _array._bfloat16.cache_clear()


def test_cupy_has_bfloat16_from_ml_dtypes(cupy, asked_anew):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = dc.device("cuda").asarray(np.asarray([1.5, 3.0]), "bfloat16")
    assert x.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(dc.to_numpy(x), np.asarray([1.5, 3.0], dtype="float32"))
    assert dc.device("cuda").dtypes == ("float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("lack", ["ml_dtypes", "CuPy 14"])
def test_cupy_may_have_no_bfloat16(lack, cupy, asked_anew, monkeypatch):
    if lack == "ml_dtypes":
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    else:
        monkeypatch.setattr(cupy.module, "__version__", "13.6.0")
    with pytest.raises(InvalidType, match=r"^cuda:0 \(cupy\) has no bfloat16; use one of float16"):
        dc.device("cuda").asarray(np.ones(2), "bfloat16")


def test_torch_keeps_its_graph_within_the_library():
    torch = pytest.importorskip("torch")
    x = torch.ones(2, requires_grad=True)
    assert dc.to_device(x, "torch") is x
    assert dc.to_device(x, "torch", dtype="float64").requires_grad
    assert dc.to_device(x, "cpu").tolist() == [1.0, 1.0]


def test_to_numpy_of_odd_tensors():
    torch = pytest.importorskip("torch")
    c = torch.tensor([1 + 2j]).conj()
    np.testing.assert_array_equal(dc.to_numpy(c), [1 - 2j])
    np.testing.assert_array_equal(dc.to_numpy(c.imag), [-2.0])
    np.testing.assert_array_equal(dc.to_numpy(torch.ones(2, requires_grad=True)), [1, 1])
    np.testing.assert_array_equal(dc.to_numpy(torch.ones(2, dtype=torch.bfloat16).neg()), [-1, -1])


def test_a_traced_array():
    jax = pytest.importorskip("jax")
    seen = []

    def f(x):
        seen.append(dc.device_of(x))
        assert dc.to_device(x, "jax") is x
        with pytest.raises(InvalidType, match=r"x is traced by jax.jit and has no values yet"):
            dc.to_device(x, "cpu")
        y = seen[0].asarray(np.ones(2, dtype="float32"))
        assert dc.to_device(y, seen[0]) is y
        return x + y

    np.testing.assert_array_equal(jax.jit(f)(np.ones(2, dtype="float32")), [2, 2])
    assert (seen[0].spec, seen[0].native) == ("jax", None)


@pytest.mark.parametrize("spec", ["cuda", "torch:cuda", "jax:cuda"])
def test_a_real_gpu(spec):
    try:
        d = dc.device(spec)
    except InvalidValue as error:
        pytest.skip(str(error))
    for _, host in layouts():
        x = dc.to_device(host, d)
        assert dc.device_of(x) == d
        assert dc.to_device(x, spec) is x
        np.testing.assert_array_equal(dc.to_device(x, "cpu"), host)


# The package around it, in interpreters of its own.


def run(code, **environment):
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ.get("PATH", ""), **environment}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_package_imports_no_other_library_and_starts_nothing():
    assert run(
        "import os, sys, threading, numpy\n"
        "count = lambda: len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self') else 0\n"
        "others = ('cupy', 'torch', 'jax', 'array_api_strict')\n"
        "before = count()\n"
        "import devconv\n"
        "print([name for name in others if name in sys.modules])\n"
        "print(threading.active_count(), count() - before)\n"
        "devconv.device('cpu'); devconv.to_device(numpy.ones(2), 'cpu')\n"
        "print([name for name in others if name in sys.modules])\n"
    ) == ["[]", "1", "0", "[]"]


@pytest.mark.parametrize(
    "imports",
    [
        "import devconv.device\nimport devconv as dc",
        "import devconv as dc\nimport devconv.device",
        "from devconv.device import Device\nimport devconv as dc",
        "import importlib\nimportlib.import_module('devconv.device')\nimport devconv as dc",
        "import devconv as dc\nimport devconv.functional, devconv.testing",
        "import devconv.testing\nfrom devconv import device, to_device\nimport devconv as dc",
    ],
)
def test_the_name_device_is_the_function_whatever_was_imported_first(imports):
    code = f"{imports}\nprint(dc.device('cpu').spec, dc.device.__class__.__name__)"
    assert run(code) == ["cpu", "function"]


def test_jax_devices_beside_the_first():
    pytest.importorskip("jax")
    assert run(
        "import numpy as np, devconv as dc, jax\n"
        "from jax.sharding import Mesh, NamedSharding, PartitionSpec\n"
        "d = dc.device('jax:cpu:1')\n"
        "x = dc.to_device(np.ones(2, dtype='float32'), d)\n"
        "print(d.spec, dc.device_of(x).spec, dc.device_of(dc.to_device(x, 'jax')).spec)\n"
        "mesh = Mesh(np.array(jax.devices()), ('a',))\n"
        "s = jax.device_put(x, NamedSharding(mesh, PartitionSpec('a')))\n"
        "print(dc.device_of(s).spec, dc.to_device(s, 'jax').device == jax.devices()[0])\n",
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
        JAX_PLATFORMS="cpu",
    ) == ["jax:cpu:1", "jax:cpu:1", "jax", "jax", "True"]
