"""What happened: instances, jobs, results and deliveries, each change in one transaction.

A module named in the singular holds a value (`job`, `delivery`); one in the plural holds the operations on
its table (`jobs`, `deliveries`). Functions that take a `Transaction` neither begin nor commit it.
"""
