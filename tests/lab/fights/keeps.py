"""A plain holder; what happens to its machine comes from outside."""

from fight import done, keeper

keeper()
done()
