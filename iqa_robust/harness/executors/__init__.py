"""Who runs the cells of a plan: this process, processes of this machine, or actors of a Ray cluster."""
