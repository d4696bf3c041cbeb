"""Workers contend for locks while a nemesis breaks things; a judge reads what they wrote."""
