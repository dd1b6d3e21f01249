"""The `sae` room of AffectLens; import it as `affectlens.sae`."""

if __name__ != "affectlens.sae":
    raise ImportError("import affectlens.sae, not sae: the folder is mapped to one import name")
