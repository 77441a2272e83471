"""`python -m megacache` is the command `megacache`."""

from megacache._cli import main

if __name__ == "__main__":
    main()
