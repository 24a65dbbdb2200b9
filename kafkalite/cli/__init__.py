"""The command line: click commands that parse, call and print. No rules of their own.

:mod:`kafkalite.cli.main` is the tree of commands; each lives in a module of its own that is
imported only when it is the one called, so that `kafkalite --help` costs no client and no server.
:mod:`kafkalite.cli.outcome` turns what went wrong into one line and one exit code, the same for
every command (CONTRACTS section 6). JSON and results go to stdout, words for people to stderr.
"""
