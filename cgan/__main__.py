"""``python -m cgan``."""

from cgan.cli import main

if __name__ == "__main__":
    main()
