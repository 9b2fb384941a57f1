"""All models, so that whoever imports one has them all registered."""

from app.models.access import Port, Purpose, SshKey
from app.models.accounts import Account, ApiToken, Role, SignIn, User, UserState
from app.models.audit import AuditEvent
from app.models.backups import Backup, Download
from app.models.base import Base
from app.models.bookings import Allocation, Booking, Phase, Refusal
from app.models.classes import AccountClass
from app.models.idle import Idling, Outcome
from app.models.inventory import (
    Gpu,
    GpuState,
    Host,
    Instance,
    InstanceStatus,
    LibraryChoice,
    Schedule,
)
from app.models.ledger import EntryKind, LedgerEntry
from app.models.maintenance import Block, Maintenance
from app.models.notices import Channel, Event, Feed, News, Notice, NoticeChoice
from app.models.operations import Operation, OperationKind, OperationState
from app.models.policy import Charge, Policy, Reclaim
from app.models.readings import Readable, Reading
from app.models.series import Series
from app.models.shares import SharedDirectory
from app.models.teams import TeamMember
from app.models.templates import Template, TemplateKind, TemplateState
from app.models.terminals import Terminal
from app.models.usage import Consumer, GpuNow, UsageBatch, UsageDay, UsageHostHour, UsageHour, UsageMinute, UsagePiece
from app.models.waits import Wait, WaitState

__all__ = [
    "Account",
    "AccountClass",
    "Allocation",
    "ApiToken",
    "AuditEvent",
    "Backup",
    "Base",
    "Block",
    "Booking",
    "Channel",
    "Charge",
    "Consumer",
    "Download",
    "EntryKind",
    "Event",
    "Feed",
    "Gpu",
    "GpuNow",
    "GpuState",
    "Host",
    "Idling",
    "Instance",
    "InstanceStatus",
    "LedgerEntry",
    "LibraryChoice",
    "Maintenance",
    "News",
    "Notice",
    "NoticeChoice",
    "Operation",
    "OperationKind",
    "OperationState",
    "Outcome",
    "Phase",
    "Policy",
    "Port",
    "Purpose",
    "Readable",
    "Reading",
    "Reclaim",
    "Refusal",
    "Role",
    "Schedule",
    "Series",
    "SharedDirectory",
    "SignIn",
    "SshKey",
    "TeamMember",
    "Template",
    "TemplateKind",
    "TemplateState",
    "Terminal",
    "UsageBatch",
    "UsageDay",
    "UsageHostHour",
    "UsageHour",
    "UsageMinute",
    "UsagePiece",
    "User",
    "UserState",
    "Wait",
    "WaitState",
]
