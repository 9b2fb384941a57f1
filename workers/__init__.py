"""What runs beside the portal: the hosts' agents, and the supervisor that keeps everything up."""
