"""The real kernel: who holds a GPU on this host, and that nobody opens it who has not booked it.

`host` is the whole of it; `nodes` and `cgroups` read, `fence` and `bpf` deny, `scan` looks (in a process of its own,
which `scanner` keeps), `ending` ends. Standard library only, and this file imports nothing: the scanning process loads
it too.
"""
