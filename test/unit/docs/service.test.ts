import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { configSchema } from '../../../src/config/schema.ts';
import { ROOT } from '../../support/documents.ts';

const text = await readFile(path.join(ROOT, 'systemd/berth.service'), 'utf8');

/** Settings as `Section.Name` → values, in the order of the file. */
function settings(): Map<string, string[]> {
  const found = new Map<string, string[]>();
  let section = '';
  for (const line of text.split('\n')) {
    section = /^\[(\w+)\]$/.exec(line)?.[1] ?? section;
    const [, name, value = ''] = /^(\w+)=(.*)$/.exec(line) ?? [];
    if (name === undefined) continue;
    const key = `${section}.${name}`;
    found.set(key, [...(found.get(key) ?? []), value]);
  }
  return found;
}

describe('systemd/berth.service', () => {
  const unit = settings();

  it.each([
    ['what waits for berthd finds its socket', 'Service.Type', 'notify'],
    ['only berthd itself speaks to systemd', 'Service.NotifyAccess', 'main'],
    ['a restart leaves conmon and with it the pods alone', 'Service.KillMode', 'process'],
    ['systemd leaves the cgroups below to berthd', 'Service.Delegate', 'yes'],
    ['it comes back however it ended', 'Service.Restart', 'always'],
    ['for ever', 'Unit.StartLimitIntervalSec', '0'],
    ['pods are killed before it', 'Service.OOMScoreAdjust', '-999'],
    ['the kubelet finds it running', 'Unit.Before', 'kubelet.service'],
    ['a conmon for each container fits in', 'Service.TasksMax', 'infinity'],
    ['a kernel without the module may start it', 'Service.ExecStartPre', '-/sbin/modprobe overlay'],
  ])('%s', (_why, name, value) => expect(unit.get(name)).toEqual([value]));

  it('has a watchdog, and a limit of descriptors that containers can inherit', () => {
    expect(unit.get('Service.WatchdogSec')?.[0]).toMatch(/^\d+s$/);
    const limit = Number(unit.get('Service.LimitNOFILE')?.[0]);
    expect(limit).toBeGreaterThanOrEqual(65_536);
    expect(limit).toBeLessThanOrEqual(1_048_576);
  });

  it('needs the mounts of the default configuration, and hides none from pods', () => {
    expect(unit.get('Unit.RequiresMountsFor')?.[0]?.split(' ')).toContain(configSchema.parse({}).root);
    const hiding = [...unit.keys()].filter((key) =>
      /\.(Private|Protect|ReadOnly|RuntimeDirectory)/.test(key),
    );
    expect(hiding).toEqual([]);
  });

  it('says why in a comment above each setting whose reason is not its name', () => {
    const lines = text.split('\n');
    for (const name of ['KillMode', 'Delegate', 'LimitNOFILE', 'OOMScoreAdjust', 'WatchdogSec', 'TasksMax']) {
      const at = lines.findIndex((line) => line.startsWith(`${name}=`));
      expect(lines[at - 1], name).toMatch(/^# ./);
    }
  });
});
