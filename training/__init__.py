"""The `training` room of AffectLens; import it as `affectlens.training`."""

if __name__ != "affectlens.training":
    raise ImportError(
        "import affectlens.training, not training: the folder is mapped to one import name"
    )
