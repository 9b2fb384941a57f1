"""What Berth does, as verbs in small modules. They flush and never commit; they know no HTTP, no RQ."""
