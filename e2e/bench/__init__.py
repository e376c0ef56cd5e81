"""`make bench`: what forwarding costs, beside HAProxy, nginx and a byte relay.

`__main__.py` reads the command line and runs the cells of `cells.py`. A cell is
one kind of work; it is measured in interleaved rounds (`rounds.py`), in each of
which every proxy (`proxies.py`) does the same work for the same origin
(`origin.py`). What a run of the work costs is read from /proc (`cost.py`). The
result is compared with what the project aims at (`targets.py`) and printed
(`report.py`). Nothing here asserts a time.

Standard library only; Linux only. `relay/` and `openloop/` are two small Go
programs that it builds.
"""
