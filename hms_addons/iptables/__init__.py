"""`hms iptables`: the machine's rules that lead an app's calls to its sidecar.

`rules` says what they are: a *redirection* becomes the text that `iptables-restore` reads, and the script that a
person can run. `applied` runs the same in the network namespace that it is called in. All rules are in chains
of their own, `HMS_OUTPUT` and `HMS_INBOUND`, so that what was put there can be taken away again, and nothing else.
"""
