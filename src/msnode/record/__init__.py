"""What happened: instances, jobs, results and deliveries, each change in one transaction."""
