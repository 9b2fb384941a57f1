"""What pages ask of a thing that long work is done on."""

from __future__ import annotations

from app.models import Operation, OperationState
from app.services import operations


class Worked:
    """A machine or a template with the newest operation on it, if there was one."""

    operation: Operation | None

    @property
    def busy(self) -> bool:
        """Whether work on it is under way."""
        return self.operation is not None and self.operation.state in operations.OPEN

    @property
    def failed(self) -> bool:
        """Whether the last thing that was asked for did not work."""
        return self.operation is not None and self.operation.state == OperationState.FAILED
