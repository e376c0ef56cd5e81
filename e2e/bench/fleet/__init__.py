"""`make bench-fleet`: what a control plane costs that serves many data planes.

The control plane is the built program; the data planes are played by one small Go
program (`../dataplanes`), on the same machine, with a connection and a stream each.
`cells.py` has what is measured, `simulated.py` the programs, `__main__.py` the command
line. Nothing here asserts a time. Standard library only; Linux only.
"""
