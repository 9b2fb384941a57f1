"""Series: many bookings that are asked for, shown, made, moved and given back together."""
