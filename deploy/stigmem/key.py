"""Registers the admin key of STIGMEM_ADMIN_KEY_FILE with a node that has none yet; nothing to do when it is good.

Runs beside the node, on the same database: the node must have started once, so that its tables are there.
"""

import os
import pathlib
import subprocess
import sys
import urllib.error
import urllib.request

key = pathlib.Path(os.environ["STIGMEM_ADMIN_KEY_FILE"]).read_text().strip()


def is_good() -> bool:
    request = urllib.request.Request(
        f"{os.environ['STIGMEM_URL']}/v1/federation/peers", headers={"Authorization": f"Bearer {key}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10):
            return True
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return False
        raise


if not is_good():
    # By the environment: an argument would stand in the process list.
    command = ["stigmem", "auth", "bootstrap-key"]
    command += ["--entity-uri", os.environ["STIGMEM_ENTITY_URI"]]
    command += ["--permissions", "admin,write,read,federate,admin:federation"]
    done = subprocess.run(command, env={**os.environ, "STIGMEM_BOOTSTRAP_KEY": key}, check=False)
    if done.returncode != 0 or not is_good():
        sys.exit("the node has other keys: put its own admin key into secrets/stigmem_admin_key")
print("the admin key is good")
