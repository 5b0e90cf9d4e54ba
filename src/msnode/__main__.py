"""`python -m msnode` is the `msnode` command."""

from msnode.cli import main

if __name__ == "__main__":
    main()
