"""``python -m devconv`` is the command ``devconv``."""

from devconv.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
