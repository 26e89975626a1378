"""Run the command line: `python -m cavendish`."""

from cavendish.cli.main import main

if __name__ == "__main__":
    main()
