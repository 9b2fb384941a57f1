"""What the API gives, as pydantic models."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.web.api.moments import MomentOut

Hours = Annotated[float, Field(description="GPU-hours")]


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


class GpuOut(_Out):
    """One GPU."""

    id: int
    host: str
    model: str
    pci_address: str
    minor: int
    """N of /dev/nvidiaN"""
    state: str
    """`in_service`, `maintenance` or `quarantine`"""


class AllocationOut(_Out):
    """One GPU of a booking, and what was seen of it on the host."""

    gpu: int
    model: str
    pci_address: str
    minor: int
    attached_at: MomentOut | None
    detached_at: MomentOut | None
    trouble: str
    """Why it is not attached yet, as a code; empty when nothing is wrong."""


class BookingOut(_Out):
    """One booking."""

    id: int
    owner: str
    mine: bool
    host: str
    gpus: list[int]
    starts_at: MomentOut
    ends_at: MomentOut
    phase: str
    """`upcoming`, `running`, `past` or `cancelled`, at the moment of the answer"""
    note: str | None
    """Null where it is somebody else's."""
    gpu_hours: Hours
    series: int | None
    """The series that it is one of"""
    allocations: list[AllocationOut]
    created_at: MomentOut
    cancelled_at: MomentOut | None
    released_at: MomentOut | None


class OccurrenceOut(_Out):
    """One booking of a series that could be made, at the moment of the answer."""

    starts_at: MomentOut
    ends_at: MomentOut
    gpus: list[int]
    gpu_hours: Hours


class RefusedOut(_Out):
    """One booking of a series that is not possible, and why: as for one booking."""

    starts_at: MomentOut
    ends_at: MomentOut
    code: str
    detail: str
    hint: str


class SeriesPreviewOut(_Out):
    """What would become of a series; `gpu_hours` is what those that fit cost, `free` what is left before."""

    fits: list[OccurrenceOut]
    refused: list[RefusedOut]
    gpu_hours: Hours
    free: Hours


class SeriesOut(_Out):
    """The same hours on certain weekdays, and the bookings that were made of it."""

    id: int
    zone: str
    weekdays: list[int]
    """0 for Monday"""
    start_time: str
    end_time: str
    """Not later than `start_time`: on the next day"""
    first_day: str
    until: str
    """The last day on which one may begin"""
    bookings: list[BookingOut]
    refused: list[RefusedOut]
    """What could not be booked, in the answer to the request that made it"""


class WaitOut(_Out):
    """One place on the waiting list."""

    id: int
    state: str
    """`waiting`, `offered`, `granted`, `expired` (its time is over, or the offer was not taken) or `withdrawn`"""
    place: int | None
    """The how manieth it is of those who want some of the same; null for one that does not wait"""
    gpus: list[int]
    count: int
    model: str
    host: str
    hours: Hours
    starts_at: MomentOut
    ends_at: MomentOut
    ask_first: bool
    note: str
    account: str
    booking: int | None
    """What it was given or is offered"""
    decide_by: MomentOut | None
    """Until when an offer stands, or what was booked can be given back without a late charge"""
    created_at: MomentOut
    granted_at: MomentOut | None
    closed_at: MomentOut | None


class InstanceOut(_Out):
    """One machine."""

    name: str
    host: str
    owner: str
    image: str
    cpus: int
    memory_mib: int
    disk_gib: int
    status: str
    created_at: MomentOut
    address: str
    """Where people reach its host"""
    ssh_port: int | None
    rdp_port: int | None
    ssh_answers: bool
    """Whether SSH answered when the host's agent last tried"""
    rdp_answers: bool


class QuotaOut(_Out):
    """Where the person's account stands, in GPU-hours; `free` = `granted` - `held` - `used`."""

    granted: Hours
    held: Hours
    used: Hours
    free: Hours


class UsageOut(_Out):
    """One booking's part in a span of time."""

    booking: int
    owner: str
    host: str
    gpus: list[int]
    starts_at: MomentOut
    ends_at: MomentOut
    reserved_seconds: int
    """GPU-seconds that were booked within the span, up to now"""
    attached_seconds: int
    """GPU-seconds in which a GPU was seen attached within the span, up to now"""
    busy_seconds: int | None
    """GPU-seconds in which a GPU was at work; null where nobody looked"""
    idle_seconds: int | None
    """GPU-seconds in which a GPU was attached and looked at, and not at work; null where nobody looked"""
    no_data_seconds: int
    """GPU-seconds in which a GPU was attached and nobody looked: neither busy nor idle"""
    energy_kwh: float
    peak_memory_mib: int
    reserved_hours: Hours
    attached_hours: Hours


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    type: str
    title: str
    status: int
    code: str
    """The last part of `type`: a word for programs."""
    detail: str
    hint: str
    """What to do about it."""


class FieldError(BaseModel):
    """One field and what is wrong with it; `field` is empty where it is the whole."""

    field: str
    message: str


class InvalidProblem(Problem):
    """A value that cannot be meant, or a rule of the lab that forbids it."""

    errors: list[FieldError]


class ClashOut(_Out):
    """Somebody else's booking in the way."""

    gpu: str
    host: str
    owner: str
    starts_at: MomentOut
    ends_at: MomentOut


class AlternativeOut(_Out):
    """A window that was free at the moment of the answer."""

    kind: str
    """`later`, `shorter` or `elsewhere`"""
    host: str
    gpus: list[int]
    starts_at: MomentOut
    ends_at: MomentOut


class ConflictProblem(Problem):
    """Somebody or something was first."""

    next_free: MomentOut | None
    """When the same length is free next; null where nothing is, or where it is not a matter of time."""
    clashes: list[ClashOut]
    alternatives: list[AlternativeOut]
