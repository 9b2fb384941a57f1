"""Bookings whose GPUs do nothing: seen from what was measured, told to their owners, and given back.

`busy` says what a busy minute is, `judging` what counts as doing nothing, `sight` looks at what was measured, `steps`
does what follows, `keeping` is what owners can say to it, `told` what admins read of it.
"""
