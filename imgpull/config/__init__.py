"""What an experiment may say (`schema`), and the frozen Job that it becomes (`job`)."""
