"""What layers do with their saved activations, in words."""

from __future__ import annotations

from collections.abc import Iterable

from costmodel.layouts import POLICIES


def policies_words(policies: Iterable[int]) -> str:
    """``recompute none / selective, activations offloaded in part``: of indices into POLICIES, one a layer."""
    used = [POLICIES[index] for index in sorted(set(policies))]
    recomputes = list(dict.fromkeys(policy.recompute for policy in used))
    parts = ["no recompute" if recomputes == ["none"] else "recompute " + " / ".join(recomputes)]
    offloading = [policy for policy in used if policy.offload != "none"]
    if offloading:
        drives = " to drives" if any(policy.offload_to == "nvme" for policy in offloading) else ""
        whole = all(policy.offload == "all" for policy in used)
        parts.append(f"activations offloaded{drives}" + ("" if whole else " in part"))
    narrow = [policy for policy in used if policy.saved_dtype != "as-computed"]
    if narrow:
        parts.append("activations in 8 bits" if len(narrow) == len(used) else "some activations in 8 bits")
    return ", ".join(parts)
