import { expect, test } from 'vitest';
import { parseSeccompProfile, resolveSeccomp } from '../../../src/spec/seccomp.ts';
import { withoutNesting } from '../../../src/spec/seccomp-default.ts';
import { hostFacts } from './configs.ts';

const profile = withoutNesting(
  parseSeccompProfile(
    JSON.stringify({
      defaultAction: 'SCMP_ACT_ERRNO',
      syscalls: [
        { names: ['read', 'unshare', 'clone', 'clone3'], action: 'SCMP_ACT_ALLOW' },
        { names: ['setns'], action: 'SCMP_ACT_ALLOW' },
      ],
    }),
    'p',
  ),
);
const rulesFor = (name: string, caps: string[], goArch = 'amd64') =>
  resolveSeccomp(profile, caps, hostFacts({ goArch })).syscalls.filter((rule) => rule.names.includes(name));

test('calls that make or enter namespaces take CAP_SYS_ADMIN; all others stay as they are', () => {
  for (const name of ['unshare', 'setns', 'mount']) {
    expect(rulesFor(name, []), name).toMatchObject([{ action: 'SCMP_ACT_ERRNO', errnoRet: 1 }]);
    expect(rulesFor(name, ['CAP_SYS_ADMIN']), name).toMatchObject([{ action: 'SCMP_ACT_ALLOW' }]);
  }
  expect(rulesFor('read', [])).toMatchObject([{ names: ['read'], action: 'SCMP_ACT_ALLOW' }]);
});

test('clone makes no namespace without it, and clone3, whose flags no filter sees, is not there', () => {
  expect(rulesFor('clone3', [])).toMatchObject([{ action: 'SCMP_ACT_ERRNO', errnoRet: 38 }]);
  const [allowed, ...refused] = rulesFor('clone', []);
  expect(allowed).toMatchObject({
    action: 'SCMP_ACT_ALLOW',
    args: [{ index: 0, value: 0x7e02_0000, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }],
  });
  expect(refused).toHaveLength(7);
  expect(new Set(refused.map((rule) => rule.action))).toEqual(new Set(['SCMP_ACT_ERRNO']));
  expect(rulesFor('clone', [], 's390x')[0]).toMatchObject({ args: [{ index: 1 }] });
  for (const name of ['clone', 'clone3']) {
    expect(rulesFor(name, ['CAP_SYS_ADMIN']), name).toMatchObject([{ action: 'SCMP_ACT_ALLOW' }]);
  }
});
