"""The rules that a class of accounts books by: what they are, whether a request keeps them, and what it costs.

`terms`, `periods`, `tariff` and `check` are pure; `classes` reads and changes them, `gate` is where they are enforced,
`trial` holds new ones against what was booked.
"""
