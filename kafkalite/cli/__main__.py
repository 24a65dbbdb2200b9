"""`python -m kafkalite.cli`: what the scripts run."""

from kafkalite.cli.main import main

if __name__ == "__main__":
    main()
