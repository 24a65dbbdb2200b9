"""The cluster in containers: what `compose/` promises, on a real Docker engine.

Where no engine answers these tests are skipped; `compose/ci-docker` installs and starts one on a fresh
Debian machine, and builds the images.
"""
