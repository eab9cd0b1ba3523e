"""The lab: statistics over seeds, progress, the report page. It knows no domain."""
