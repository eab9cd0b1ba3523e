"""The lab: trials, sweeps, statistics, claims, the report page. It knows no domain."""
