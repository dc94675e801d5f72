"""The two user commands: what they say before any work is done. Neither builds anything here."""

import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = [ROOT / "pipelines" / "quickstart.sh", ROOT / "tests" / "run.sh"]


def bash(*arguments):
    return subprocess.run(["bash", *map(str, arguments)], capture_output=True, text=True, timeout=60)


class ScriptsTest(unittest.TestCase):
    def test_help_and_wrong_usage(self):
        for script in SCRIPTS:
            for option in ("--help", "-h"):
                done = bash(script, option)
                self.assertEqual((done.returncode, done.stderr), (0, ""), script)
                self.assertTrue(done.stdout.startswith(f"usage: bash {script.relative_to(ROOT)}"), done.stdout)
            for wrong in (["--nonsense"], ["--threads"]):
                done = bash(script, *wrong)
                self.assertEqual((done.returncode, done.stdout), (2, ""), script)
                self.assertTrue(done.stderr.startswith("usage:"), done.stderr)

    def test_quickstart_overwrites_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            done = bash(SCRIPTS[0], "--output", folder)
            self.assertEqual(done.returncode, 1)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertIn("--output", done.stderr)

    def test_a_missing_package_is_named_where_it_cannot_be_installed(self):
        # As a user without sudo, on a machine without one of the packages.
        setup = ROOT / "pipelines" / "setup.sh"
        done = bash("-c", f"source '{setup}'; required_packages=(no-such-package); optional_packages=();"
                          "id() { echo 1000; }; command() { [ \"$2\" != sudo ] && builtin command \"$@\"; };"
                          "install_packages")
        if "no apt-get here" in done.stdout:
            self.skipTest("no apt-get here")
        self.assertEqual(done.returncode, 1)
        self.assertIn("apt-get install no-such-package", done.stderr)


if __name__ == "__main__":
    unittest.main()
