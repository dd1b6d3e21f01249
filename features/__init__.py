"""The `features` room of AffectLens; import it as `affectlens.features`."""

if __name__ != "affectlens.features":
    raise ImportError(
        "import affectlens.features, not features: the folder is mapped to one import name"
    )
