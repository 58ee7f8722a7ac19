"""Who must say yes before a candidate is promoted: the rules, and the approvals that were given."""
