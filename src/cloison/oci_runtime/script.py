"""``script``: the command once more, as a script that starts this installation's interpreter bare.

Installers write the first line of a console script themselves, without options; so the interpreter looks for site
packages and ``.pth`` files before it reads the second, which costs 3 ms on every call. Importing one module after the
other costs more; hence the file of `cloison.oci_runtime.bytecode`, which is written on this occasion.
"""

from __future__ import annotations

import os
import sys

from cloison.errors import Denied, Unavailable
from cloison.oci_runtime import bytecode
from cloison.oci_runtime.log import say
from cloison.oci_runtime.options import Call, Verb


def _script(call: Call) -> int:
    try:
        bytecode.write()
    except (Denied, Unavailable) as error:
        call.log.warning(f"{error}; each call will be slower")
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    say(
        f"#!{sys.executable} -IS\nimport sys\n{bytecode.starter()}sys.path.insert(0, {home!r})\n"
        "from cloison.oci_runtime.main import main\n\nsys.exit(main())\n"
    )
    return 0


SCRIPT = Verb("script", _script, usage="", least=0, most=0)
