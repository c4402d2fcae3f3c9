import dataclasses, hashlib
import numpy as np
REASONS=("duplicate address","duplicate page","near-duplicate page")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DuplicatesConfig:
    names: str = "pages"  # which
    def has(self, n): return n in self.names.split(",")
class KeyWriter:
    def __init__(self, config): self.p=[]
    def add(self,url,text): self.p.append(int.from_bytes(hashlib.blake2b(text.encode("utf-8","surrogatepass"),digest_size=8).digest(),"little"))
    def close(self): return {"pages":np.array(self.p,np.uint64)}
def find_repeated_pages(parts, config):
    seen=set(); out=[]
    for p in parts:
        v=np.zeros(len(p["pages"]),np.uint8)
        for i,k in enumerate(p["pages"].tolist()):
            if k in seen: v[i]=2
            seen.add(k)
        out.append(v)
    return out
def find_repeated_lines(parts, dropped): raise NotImplementedError
def remove_lines(text, repeated): return "\n".join(l for l,r in zip(text.split("\n"),repeated) if not r)
