"""``python -m ckptools``."""

from ckptools.cli.main import main

if __name__ == "__main__":
    main()
