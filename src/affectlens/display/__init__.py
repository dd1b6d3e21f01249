"""What people see of results: cards at a prompt and in notebooks, figures on matplotlib axes.

Imports nothing of ours, and matplotlib only when a figure is drawn, so that every room may use it.
Numbers and tables come in as arguments; the rooms say in their `*_views` modules what is shown.
"""
