"""All models, so that whoever imports one has them all registered."""

from app.models.access import Port, Purpose, SshKey
from app.models.accounts import Account, ApiToken, Role, SignIn, User, UserState
from app.models.audit import AuditEvent
from app.models.base import Base
from app.models.bookings import Allocation, Booking, Phase, Refusal
from app.models.classes import AccountClass
from app.models.inventory import (
    Gpu,
    GpuState,
    Host,
    Instance,
    InstanceStatus,
    Schedule,
)
from app.models.ledger import EntryKind, LedgerEntry
from app.models.operations import Operation, OperationKind, OperationState
from app.models.policy import Policy
from app.models.shares import SharedDirectory
from app.models.teams import TeamMember
from app.models.templates import Template, TemplateKind, TemplateState
from app.models.terminals import Terminal

__all__ = [
    "Account",
    "AccountClass",
    "Allocation",
    "ApiToken",
    "AuditEvent",
    "Base",
    "Booking",
    "EntryKind",
    "Gpu",
    "GpuState",
    "Host",
    "Instance",
    "InstanceStatus",
    "LedgerEntry",
    "Operation",
    "OperationKind",
    "OperationState",
    "Phase",
    "Policy",
    "Port",
    "Purpose",
    "Refusal",
    "Role",
    "Schedule",
    "SharedDirectory",
    "SignIn",
    "SshKey",
    "TeamMember",
    "Template",
    "TemplateKind",
    "TemplateState",
    "Terminal",
    "User",
    "UserState",
]
