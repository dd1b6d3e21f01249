"""The `data` room of AffectLens; import it as `affectlens.data`."""

if __name__ != "affectlens.data":
    raise ImportError("import affectlens.data, not data: the folder is mapped to one import name")
