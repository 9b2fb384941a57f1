"""The waiting list: who joins is served in that order, by what their rules and their quota allow.

Whoever cannot use what is free is passed over and keeps the place. Nothing is kept empty for a large wish, so small
ones may be served before it. What changes the line takes its lock first, before any account's.
"""
