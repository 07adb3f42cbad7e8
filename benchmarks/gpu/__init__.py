"""All there is to know about a GPU, by one command: ``python -m benchmarks gpu``.

Each part is a module with ``jobs`` (what makes its rows), ``table`` (the rows in Markdown) and
``MINUTES``. :mod:`benchmarks.gpu.command` runs parts and writes rows; :mod:`benchmarks.gpu.race`
compares and times contestants; :mod:`benchmarks.gpu.targets` says what is aimed at.
"""
