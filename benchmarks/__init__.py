"""How fast foreframe is, measured against the plain code it replaces, and counted.

`plain` is that code: an eager loop over time, as the papers' and the labs' scripts have it. `count` counts work,
`measure` takes times; each suite is one file; `run` is the entry point.
"""
