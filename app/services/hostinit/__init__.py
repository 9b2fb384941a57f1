"""`berth host init`: what a fresh workstation lacks, and doing it. Needs no database: it makes no use of any."""
