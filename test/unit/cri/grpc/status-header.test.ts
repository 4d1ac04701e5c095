import { expect, it } from 'vitest';
import { encodeStatusMessage } from '../../../../cri/grpc/status-header.ts';

it.each([
  ['pod "a": not found ~', 'pod "a": not found ~'],
  ['100 %', '100 %25'],
  ['a\nb\0', 'a%0Ab%00'],
  ['ü €', '%C3%BC %E2%82%AC'],
  ['😀', '%F0%9F%98%80'],
  ['half \ud83d', 'half %EF%BF%BD'],
])('%j is sent as %s', (message, expected) => {
  expect(encodeStatusMessage(message)).toBe(expected);
});
