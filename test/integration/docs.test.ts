import { execFile as execFileWithCallback } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { busyboxArchive } from '../support/busybox.ts';
import { type Block, type Document, ROOT, readDocuments } from '../support/documents.ts';
import { cgroupDirs, removeCgroups } from '../support/host.ts';
import { Machine } from '../support/machine.ts';

/**
 * What every document may count on, and how the machine that it is tried on comes to it. README.md and
 * docs/install.md begin on a bare machine, with nothing but the built checkout.
 */
const GIVEN = `
set -eu
ln -s ${ROOT}/bin/berth ${ROOT}/bin/berthd /usr/local/bin/
mkdir -p /etc/berth /etc/cni/net.d
cat > /etc/cni/net.d/10-docs.conflist <<'EOF'
{
  "cniVersion": "1.0.0",
  "name": "docs",
  "plugins": [
    {"type": "bridge", "bridge": "cni0", "isGateway": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}
  ]
}
EOF
systemctl enable --now ${ROOT}/systemd/berth.service
`;

/**
 * A stand-in for systemd, which the tests do not have: starts and stops what the installed unit names, and
 * waits until it answers, as Type=notify does. Units other than berth's are known by name alone.
 */
const SYSTEMCTL = `#!/bin/bash
set -eu
verb=$1 now= unit=
for word in "\${@:2}"; do
  case $word in
    --now) now=1 ;;
    *.service) [ ! -e "$word" ] || { cp "$word" /etc/systemd/system/; word=$(basename "$word"); }; unit=\${word%.service} ;;
    *) unit=$word ;;
  esac
done
[ "$unit" = berthd ] && unit=berth
start() {
  command=$(sed -n 's/^ExecStart=//p' /etc/systemd/system/berth.service)
  setsid $command >> /tmp/berth.json 2>&1 &
  echo $! > /run/berth.pid
  for _ in $(seq 900); do
    [ -S /run/berth/berth.sock ] && return
    kill -0 "$(cat /run/berth.pid)" || break
    sleep 0.05
  done
  echo "Job for berth.service failed." >&2
  exit 1
}
stop() {
  [ -e /run/berth.pid ] || return 0
  pid=$(cat /run/berth.pid)
  rm /run/berth.pid
  kill "$pid" 2>/dev/null || return 0
  while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}
[ "$verb" = daemon-reload ] && exit
[ "$unit" = berth ] || exit 0
[ -e /etc/systemd/system/berth.service ] || { echo "Unit $unit.service not found." >&2; exit 5; }
case $verb in
  enable) [ -z "$now" ] || start ;;
  disable) [ -z "$now" ] || stop ;;
  start) [ -e /run/berth.pid ] || start ;;
  stop) stop ;;
  restart) stop; start ;;
  *) echo "systemctl $verb is not known to the tests" >&2; exit 1 ;;
esac
`;
const JOURNALCTL = `#!/bin/sh
cat /tmp/berth.json
`;

/**
 * The outside world: a registry that asks for a password, and a mirror of Docker Hub that has busybox. Both
 * are Debian's docker-registry.
 */
const REGISTRIES = `
set -eu
printf '127.0.0.1 %s\\n' registry.internal mirror.internal >> /etc/hosts
mkdir -p /tmp/world
printf 'bot:$2y$05$abcdefghijklmnopqrstuuZFBUbfXoM8LFiPx8LYlO/sXZB/Cwk3K\\n' > /tmp/world/htpasswd
serve() {
  printf '{"version": "0.1", "storage": {"filesystem": {"rootdirectory": "/tmp/world/%s"}}, "http": {"addr": "127.0.0.1:%s"}%s}' \\
    "$1" "$2" "$3" > "/tmp/world/$1.yml"
  docker-registry serve "/tmp/world/$1.yml" > "/tmp/world/$1.log" 2>&1 &
  until (: < "/dev/tcp/127.0.0.1/$2") 2>/dev/null; do sleep 0.05; done
}
serve mirror 5001 ''
serve registry 5000 ', "auth": {"htpasswd": {"realm": "docs", "path": "/tmp/world/htpasswd"}}'
copy() { skopeo copy --quiet --dest-tls-verify=false "docker-archive:/tmp/world/busybox.tar" "$@"; }
copy docker://127.0.0.1:5001/library/busybox:1.36
copy --dest-creds bot:pass docker://127.0.0.1:5000/team/app:1.2
mkdir -p /etc/berth/certs.d/docker.io
printf '[host."http://mirror.internal:5001"]\\n' > /etc/berth/certs.d/docker.io/hosts.toml
printf pass > /root/password
cp /tmp/world/busybox.tar /root/
`;

const execFile = promisify(execFileWithCallback);

const BARE = ['README.md', 'docs/install.md'];
const MARK = '=== block at line';

let machine: Machine | undefined;

/** Names of what pods have on the machine, which are ids of 64 hex digits. */
const LIST_IDS = `ls /run/berth/sandboxes /run/berth/containers /tmp/berth/state/sandboxes /tmp/berth/state/containers |
  grep -x '[0-9a-f]*' || :`;

afterEach(async () => {
  if (machine === undefined) return;
  const { output } = await machine.run(LIST_IDS, { cwd: '/' });
  await machine.close();
  machine = undefined;
  // Control groups are the host's. After a success there are none.
  const ids = output.split('\n').filter((name) => name.length === 64);
  for (const id of ids) await removeCgroups(`/berth/${id}`);
  // Another berthd may use the parent.
  if (ids.length > 0) for (const dir of await cgroupDirs('/berth')) await rmdir(dir).catch(() => {});
  expect(ids).toEqual([]);
});

async function prepare(document: Document): Promise<Machine> {
  machine = await Machine.start();
  await mkdir(path.join(machine.tmp, 'world'));
  const archive = await busyboxArchive('docker.io/library/busybox:1.36', ['sh']);
  await writeFile(path.join(machine.tmp, 'world/busybox.tar'), archive);
  await writeFile(path.join(machine.tmp, 'systemctl'), SYSTEMCTL);
  await writeFile(path.join(machine.tmp, 'journalctl'), JOURNALCTL);
  const install =
    'install -m 755 /tmp/systemctl /tmp/journalctl /usr/local/sbin/ && rm /tmp/systemctl /tmp/journalctl';
  const scripts = [install, REGISTRIES, ...(BARE.includes(document.name) ? [] : [GIVEN])];
  for (const script of scripts) {
    const { code, output } = await machine.run(script, { cwd: '/' });
    if (code !== 0) throw new Error(`the machine for ${document.name} could not be prepared:\n${output}`);
  }
  return machine;
}

/** The blocks to run, each with the output that the document shows for it, if it does. */
function steps({ blocks, text }: Document): { block: Block; shown: string | undefined }[] {
  const lines = text.split('\n');
  return blocks.flatMap((block, index) => {
    if (block.language !== 'sh' || block.info.startsWith('norun')) return [];
    const next = blocks[index + 1];
    const end = block.line + block.text.split('\n').length;
    const follows =
      next?.language === 'text' && lines.slice(end, next.line - 1).every((line) => line.trim() === '');
    return [{ block, shown: follows ? next.text : undefined }];
  });
}

/** Shown output, in which `…` stands for any text of a line, a line of it alone for any lines. */
function pattern(shown: string): RegExp {
  const lines = shown
    .trimEnd()
    .split('\n')
    .map((line) => {
      if (line.trim() === '…') return '(?:.*\\n)*';
      const words = line.trim().split(/\s+/).map(escaped);
      return `[ \\t]*${words.join('[ \\t]+')}[ \\t]*\\n`;
    });
  return new RegExp(`^${lines.join('')}$`);
}

function escaped(word: string): string {
  return word.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&').replaceAll('…', '.*');
}

describe('every command of the documents does what they say', async () => {
  const documents = (await readDocuments()).filter((document) => steps(document).length > 0);

  it.each(documents.map((document) => [document.name, document] as const))(
    '%s',
    async (name, document) => {
      const all = steps(document);
      const host = await prepare(document);
      const script = all.map(({ block }) => `echo '${MARK} ${block.line}'\n${block.text}`).join('\n');
      const cwd = BARE.includes(name) ? ROOT : '/root';
      const { code, output } = await host.run(`set -euo pipefail\n${script}`, { cwd, timeoutMs: 200_000 });
      const log = await readFile(path.join(host.tmp, 'berth.json'), 'utf8').catch(() => '');
      expect(code, `${name}: a command failed\n${output}\n${log}`).toBe(0);
      const parts = output.split(new RegExp(`^${MARK} `, 'm')).slice(1);
      expect(parts).toHaveLength(all.length);
      for (const [index, { block, shown }] of all.entries()) {
        const real = parts[index]?.slice(`${block.line}\n`.length) ?? '';
        if (shown === undefined) continue;
        expect(real, `${name}:${block.line}: the output is not what the document shows`).toMatch(
          pattern(shown),
        );
      }
      const left =
        'if [ -S /run/berth/berth.sock ]; then berth pods -q; fi; grep -c /run/berth/.*/ /proc/mounts || :';
      const after = await host.run(left, { cwd: '/' });
      expect(after.output, `${name}: its commands leave pods or mounts behind`).toBe('0\n');
    },
    240_000,
  );

  it('leave few commands out, each for a reason', async () => {
    const left = (await readDocuments()).flatMap(({ name, blocks }) =>
      blocks
        .filter(({ language, info }) => language === 'sh' && info !== '')
        .map(({ info, line }) => ({ where: `${name}:${line}`, info })),
    );
    for (const { where, info } of left) expect(info, where).toMatch(/^norun: \S.{10,}/);
    expect(left.length).toBeLessThan(11);
  });
});

describe('the service', () => {
  it.skipIf(!existsSync('/usr/bin/systemd-analyze'))(
    'is one that systemd takes without a word [needs systemd-analyze]',
    async () => {
      machine = await Machine.start();
      const script = `ln -s ${ROOT}/bin/berthd /usr/local/bin/
        mkdir -p /usr/local/lib/berth && ln -s ${ROOT}/docs /usr/local/lib/berth/
        systemd-analyze verify --man=no ${ROOT}/systemd/berth.service`;
      expect(await machine.run(script, { cwd: '/' })).toEqual({ code: 0, output: '' });
    },
  );
});

describe('the version', () => {
  it('is that of package.json, whoever says it', async () => {
    const { version } = JSON.parse(await readFile(path.join(ROOT, 'package.json'), 'utf8')) as {
      version: string;
    };
    for (const program of ['berth', 'berthd']) {
      const { stdout } = await execFile(path.join(ROOT, 'bin', program), ['--version']);
      expect(stdout, program).toBe(`${version}\n`);
    }
    const berthd = await Berthd.start({ network: false });
    try {
      const said = await berthd.client.runtime('Version', {});
      // The kubelet takes no other `version`: it is that of its own API, not of the runtime.
      expect(said).toEqual({
        version: '0.1.0',
        runtime_name: 'berth',
        runtime_version: version,
        runtime_api_version: 'v1',
      });
      expect((await berthd.client.info()).version).toBe(version);
    } finally {
      expect(await berthd.close()).toEqual([]);
    }
  });
});
