"""What knows no task: configurations, training, runs on disk, studies, and how they are shown."""
