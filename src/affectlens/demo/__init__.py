"""A local page on which features are turned while the model writes.

`serve` binds the port and runs the web server, `app` holds the routes and `guards` what stands
before them, `asked` checks what comes in. `engine` is the one thread that owns the model: it
takes texts from a queue and steps through `batches`, whose rows are watched by `traces`. `readout`
reads the finished texts, `presets` says what a run knows of its features. Nothing here imports
torch before the engine's thread loads the model.
"""
